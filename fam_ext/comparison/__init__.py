"""Methods side by side: `plan` says what is made, `run` makes it, `results` keeps it, `page` shows it."""
