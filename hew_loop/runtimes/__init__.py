"""Agent programs: how to start them and how to read what they print. No process code here."""
