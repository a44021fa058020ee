"""cupolad: the root daemon of cupola."""
