-- Requests of 100,000 users, drawn at random. `-- close` behind the url: a connection for each.

local USERS = 100000
local head = "GET /orders HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: wrk\r\nAccept: */*\r\n"

function init(args)
   math.randomseed(os.time())
   if args[1] == "close" then
      head = head .. "Connection: close\r\n"
   end
end

function request()
   return head .. "x-user-id: user-" .. math.random(USERS) .. "\r\n\r\n"
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "errors": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f}\n',
      summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
      summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
