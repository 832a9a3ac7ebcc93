"""What `bot-bottle demo` shows: the main job, with scripted upstreams and a scripted agent."""
