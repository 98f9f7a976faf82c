"""What a run looks like to a reader: pages and small figures in HTML, without scripts and without other addresses."""
