-- The begin of an enrolled exchange is a line in a pipe of its own: Envoy's access log has only ends.
-- A write never blocks, and is whole or not at all (PIPE_BUF); nothing is written for bystanders.
local WRITE_ONLY, DO_NOT_BLOCK, CLOSE_ON_EXEC = 1, 2048, 524288
local LONGEST = 4096
local begins

local function begins_pipe()
  if not begins then
    local flags = WRITE_ONLY + DO_NOT_BLOCK + CLOSE_ON_EXEC
    local handle = ffi.new("int[1]", ffi.C.open(DATA.begins, flags))
    -- Each configuration has interpreters of its own, which close what they have opened.
    begins = ffi.gc(handle, function(pipe) if pipe[0] >= 0 then ffi.C.close(pipe[0]) end end)
  end
  return begins[0]
end

-- Returns the half second of CLOCK_MONOTONIC in which the exchange begins; negative if the line was
-- not written, as when the supervisor does not read.
local function begin(who)
  ffi.C.clock_gettime(1, time)
  local slot = tonumber(time[0].s) * 2 + (tonumber(time[0].ns) >= 5e8 and 1 or 0)
  local line = table.concat({ DATA.listener, who.arm.name, who.arm.epoch, who.cohort, who.replicate,
    who.metrics, who.path, ("%d"):format(slot) }, "\t") .. "\n"
  local pipe = begins_pipe()
  if pipe < 0 or #line > LONGEST or ffi.C.write(pipe, line, #line) ~= #line then slot = -slot end
  return ("%d"):format(slot)
end
