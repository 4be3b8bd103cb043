"""The asset graph, in the order of the data flow."""
