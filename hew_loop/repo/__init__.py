"""The one package that knows git. No `Repo` object, path string or exit code leaves it."""
