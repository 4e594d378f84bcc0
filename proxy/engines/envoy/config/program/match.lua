-- Whether a request matches a fault or a metric. Lua has no regular expressions: the supervisor
-- applies a metric's regex when it counts the line, and a fault with a regex takes a detour.
local function without_port(host)
  host = host:lower()
  return host:match("^%[[^%]]*%]?") or host:match("^[^:]*")
end

local function matches(match, fields, path)
  if match.method and not match.method[fields:get(":method")] then return false end
  if match.path and path ~= match.path then return false end
  if match.prefix and path:sub(1, #match.prefix) ~= match.prefix then return false end
  if match.host and without_port(fields:get(":authority") or "") ~= match.host then return false end
  for _, pair in ipairs(match.headers) do
    if fields:getAtIndex(pair[1], 0) ~= pair[2] then return false end
  end
  return true
end
