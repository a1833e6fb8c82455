"""The page that protects pictures in a browser, as a folder of static files."""
