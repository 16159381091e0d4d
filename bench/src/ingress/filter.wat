;; A filter for Envoy by the Proxy-Wasm ABI 0.2.1 (https://github.com/proxy-wasm/spec): for each request it
;; takes all headers, looks at the host, and adds a header that says what it decided, as a router would.
;; Written by hand, with an allocator that starts anew for each request: what a filter made with an SDK
;; does beyond this comes on top.
(module
  (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $value (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  ;; 0..16: what host functions answer with, 16..: names and values.
  (data (i32.const 16) ":authority")
  (data (i32.const 32) "x-decision")
  (data (i32.const 48) "bench")
  (global $next (mut i32) (i32.const 1024))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "_initialize"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next
      (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 15)) (i32.const -16)))
    (local.get $at))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_delete") (param i32))
  (func (export "proxy_on_log") (param i32))

  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (local $at i32) (local $end i32) (local $hash i32)
    (global.set $next (i32.const 1024))
    (drop (call $pairs (i32.const 0) (i32.const 0) (i32.const 4)))
    (if (i32.eqz (call $value (i32.const 0) (i32.const 16) (i32.const 10) (i32.const 8) (i32.const 12)))
      (then
        (local.set $at (i32.load (i32.const 8)))
        (local.set $end (i32.add (local.get $at) (i32.load (i32.const 12))))
        ;; FNV-1a of the host.
        (local.set $hash (i32.const 0x811c9dc5))
        (block $done
          (loop $each
            (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
            (local.set $hash
              (i32.mul (i32.xor (local.get $hash) (i32.load8_u (local.get $at))) (i32.const 0x01000193)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $each)))
        (if (local.get $hash)
          (then
            (drop (call $add (i32.const 0) (i32.const 32) (i32.const 10) (i32.const 48) (i32.const 5)))))))
    ;; Go on.
    (i32.const 0)))
