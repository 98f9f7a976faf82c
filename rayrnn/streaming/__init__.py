"""Files that come one after another, answered as they come; what the network carries goes on from file to file."""
