"""A plan as Envoy's configuration: JSON, the Lua program and the Wasm filters; no IO, no clock."""
