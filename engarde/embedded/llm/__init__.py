"""A small real language model behind llama.cpp's OpenAI-compatible server, for generation without any key."""

MODEL = "smollm2-135m-instruct"
"""What `/v1/models` calls it."""
