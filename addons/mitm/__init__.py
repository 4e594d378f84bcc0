"""What mitmproxy is given and what is replaced in it: options, hooks, and faster functions.

How mitmproxy's layers work, as far as `addons/` builds on it:

A client connection is a stack of layers (`mitmproxy.proxy.layer.Layer`), one for each protocol:
TLS, HTTP, a stream for each request. Layers do no IO. An *event* (data has come, a connection is
closed) goes in at the top of the stack, through `handle_event`, and each layer hands it to a child
or handles it. What comes out is a generator of *commands* (send data, open a connection), which
pass through the layers in between; `transport.connection` carries them out.

    event ──▶ HookDispatcher ──▶ Entry ──▶ TLS ──▶ HTTP ──▶ stream
    command ◀────────┴────────────┴─────────┴───────┴─────────┘

A layer implements `_handle_event`, a generator that yields commands. A command that needs a reply
is *blocking*: `error = yield OpenConnection(server)`. The layer that yields it is then paused:
`handle_event` sets `command.blocking` to that layer, keeps the generator in `_paused`, and queues
all events for this layer until an event with the reply (`CommandCompleted`) comes, from which the
generator goes on. Layers further out see that `blocking` names a layer already, so they are not
paused; other requests on the connection go on. A command whose `blocking` names a layer from the
start pauses none (`faults.pacing.wait_aside`).

A *hook* (`StartHook`) is a blocking command that runs the addons' handlers. Most of our handlers
do not wait, so `hook_dispatch` runs them at once, without a task.

Every command passes through each enclosing layer as a step of one more generator, which is most
of what a request costs. So methods here return another's generator where they can, rather than
yield from it, and `fast_layers` replaces the two functions that all commands go through.
"""
