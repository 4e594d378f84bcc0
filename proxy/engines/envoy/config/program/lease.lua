-- The lease: a file with the time until which faults may happen, in milliseconds of CLOCK_MONOTONIC.
-- The program reads it again after this many milliseconds.
local PERIOD = 250
local time, leased_until, next_read = ffi.new("cf_time[1]"), 0, 0

local function leased()
  ffi.C.clock_gettime(1, time)
  local now = tonumber(time[0].s) * 1000 + tonumber(time[0].ns) / 1e6
  -- The second condition is for a clock that has jumped back: the next reading would be far away.
  if now >= next_read or now + 10000 < next_read then
    next_read = now + PERIOD
    local file = io.open(DATA.lease, "r")
    leased_until = file and tonumber(file:read("*l")) or 0
    if file then file:close() end
  end
  return now < leased_until
end
