"""One request through match, assign, inject, perform and observe, and the exchange they share.

    client                                                                upstream
      │ requestheaders hook                                                   ▲
      ▼                                                                       │
    assign ──────────────▶ inject ──────────────▶ perform ────────────────────┤
      match the request      which drawn faults     one action at a time:     │
      against the plan,      may happen: lease,     wait, answer in place     │
      find unit and cohort,  budget, dose limits    of the upstream, cut,     │
      draw the faults                               slow down, rewrite        │
                                                                              ▼
    observe ◀──────────── perform ◀───────────── inject ◀──────── responseheaders hook
      count the exchange     faults that come       what was drawn for
      once, at its end       after the upstream     `when: after`

`Assign` makes an `Exchange` when a request's head is there, and the later stages find it on the
flow. `worker/wiring.py` says which hook calls which stage. Raw connections have no flow:
`addons/tcp` makes their exchanges and calls `Inject` and `Observe` itself. A WebSocket's layer asks
`Inject` for the faults of each message.

A stage that raises an exception leaves the request as it came: traffic passes, and the error counts
in `counterfault_internal_errors_total`.
"""
