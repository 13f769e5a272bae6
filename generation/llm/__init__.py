"""The text-generator port and its adapters; `registry` makes one for a provider."""
