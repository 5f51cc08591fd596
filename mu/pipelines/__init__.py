"""The pipelines that come with mu, each in one file, registered like those of any other package."""
