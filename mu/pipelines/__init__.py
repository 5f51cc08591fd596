"""The pipelines that come with mu, one in each file, registered like those of any other package."""
