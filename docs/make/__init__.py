"""What makes the parts of the documents that are not written by hand."""

from docs.make import command_reference, recipe_reference, source_map

#: each has PAGE, a path, and page(), its text
MADE = (recipe_reference, command_reference, source_map)
