"""A plan as Envoy's configuration: JSON, Lua and Wasm filters."""
