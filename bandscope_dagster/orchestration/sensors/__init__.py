"""The sensors: new uploads, catalogs after runs, alerts on failure, results to the webhook."""
