"""`dora ui`: a server on this computer for the page in the browser, and the page."""
