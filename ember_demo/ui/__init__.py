"""The page. It calls what a script could call too, and holds no method of its own."""
