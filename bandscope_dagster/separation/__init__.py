"""Source separation: segment models behind one protocol, and overlap-add in constant memory."""
