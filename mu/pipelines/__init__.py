"""The pipelines that come with mu, each in one file and registered like a stranger's."""
