"""Programs that tests need and no package brings."""
