"""API management behind a real Envoy, asked by the real OpenAI client."""
