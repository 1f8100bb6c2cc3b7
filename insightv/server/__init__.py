"""The two-agent reasoner over HTTP, in the chat completions format, with a page to try it (`insightv serve`)."""
