;; Ends an exchange without a response if a worker has ended its detour so: Envoy then makes a
;; response with the header x-counterfault-cut, which this filter looks for.
;; `make generate` builds dropped.wasm.
(module
  (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
  (import "env" "proxy_get_header_map_value"
    (func $value (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 512) "x-counterfault-cut")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  ;; Map 2 is the response's headers. The result 0 means that the header is there.
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (if (result i32)
      (i32.eqz (call $value (i32.const 2) (i32.const 512) (i32.const 18) (i32.const 256) (i32.const 260)))
      (then (drop (call $close (i32.const 0))) (i32.const 1))
      (else (i32.const 0)))))
