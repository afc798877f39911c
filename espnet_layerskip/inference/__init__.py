"""From audio to text: Speech2Text and what it needs."""
