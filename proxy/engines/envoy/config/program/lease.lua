-- The lease: a file with a moment of CLOCK_MONOTONIC in milliseconds, looked at this often.
local LOOK = 250
local moment, leased_until, look_at = ffi.new("cf_time[1]"), 0, 0

local function leased()
  ffi.C.clock_gettime(1, moment)
  local now = tonumber(moment[0].s) * 1000 + tonumber(moment[0].ns) / 1e6
  if now >= look_at or now + 10000 < look_at then
    look_at = now + LOOK
    local file = io.open(DATA.lease, "r")
    leased_until = file and tonumber(file:read("*l")) or 0
    if file then file:close() end
  end
  return now < leased_until
end
