"""OpenAI's protocol: chats, text completions, embeddings, moderations, transcriptions, and the list of models."""

from semaforo.server.openai.form import PREFIX, error_response
from semaforo.server.openai.routes import routes

__all__ = ["PREFIX", "error_response", "routes"]
