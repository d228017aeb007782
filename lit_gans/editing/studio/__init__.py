"""The studio: a page in the browser where trained models draw, and where each picture is an edit script."""
