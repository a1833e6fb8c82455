"""Speed, memory, hostile input and measures of pictures, one command each: see README.md in this folder."""
