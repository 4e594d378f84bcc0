-- Random numbers: without a seed of its own, each of Envoy's interpreters would draw the same ones.
do
  local file = io.open("/dev/urandom", "rb")
  local seed = file and file:read(4)
  if file then file:close() end
  local a, b, c, d = (seed or "seed"):byte(1, 4)
  math.randomseed(a + 256 * (b + 256 * (c + 256 * d)))
end

-- Faults of one request, in the order of the experiment's file.
local POINTS = 1000

for _, arm in ipairs(arms) do
  for _, rule in ipairs(arm.rules) do
    if rule.quantiles then
      local table_of = {}
      for number in rule.quantiles:gmatch("[^,]+") do table_of[#table_of + 1] = tonumber(number) end
      rule.quantiles = table_of
    end
  end
end

-- Returns a delay in milliseconds, drawn from POINTS + 1 quantiles.
local function drawn(quantiles)
  local position = math.random() * POINTS
  local below = math.floor(position)
  local low = quantiles[below + 1]
  local wait = low + (quantiles[below + 2] - low) * (position - below)
  return math.floor(wait + math.random()) -- random rounding to whole milliseconds keeps the mean
end

-- Waits. The delay server never responds, so that the request's time-out is the delay; it closes the
-- connection to end a delay early. Returns `whole` after the full delay, `cut` after a shorter one,
-- `overflow` if limits.active_faults is reached.
local function hold(handle, who, milliseconds)
  if milliseconds < 1 then return "whole" end
  local head = { [":method"] = "GET", [":authority"] = "hold",
    [":path"] = "/" .. who.arm.name .. "/" .. who.arm.epoch }
  local answer, body = handle:httpCall("counterfault-hold", head, "", milliseconds)
  if answer[":status"] == "504" then return "whole" end
  return body and body:find("overflow", 1, true) and "overflow" or "cut"
end

-- Leaves the line that Envoy logs for this exchange; a later call replaces it.
local function note(handle, who, faults, status)
  local line = table.concat({ who.arm.name, who.arm.epoch, who.cohort, who.replicate,
    who.user or "", who.metrics, who.path, status or "", table.concat(faults, ","), who.slot }, "\t")
  handle:streamInfo():dynamicMetadata():set("counterfault", "line", line)
end

local function answer(handle, who, faults, rule)
  local kind = handle:headers():get("content-type") or ""
  local said = kind:lower():sub(1, 16) == "application/grpc" and rule.grpc or rule.plain
  local head = {}
  for _, pair in ipairs(said.headers) do head[pair[1]] = pair[2] end
  head[":status"] = said.status
  note(handle, who, faults, said.status)
  handle:respond(head, said.body)
end

-- Counts as failed the faults that were due after the one that has ended the request.
local function miss(faults, due, after)
  for i = after + 1, #due do faults[#faults + 1] = due[i].number .. ":failed" end
end

-- Performs one fault. Returns true if it ends the request.
local function perform(handle, who, faults, due, number)
  local rule, index = due[number], #faults + 1
  if not leased() then
    faults[index] = rule.number .. ":failed"
    return false
  end
  faults[index] = rule.number .. ":" .. (DATA.active_faults > 0 and "performed" or "overflow")
  if DATA.active_faults == 0 then return false end
  if rule.kind == "respond" then
    miss(faults, due, number)
    answer(handle, who, faults, rule)
    return true
  end
  if rule.quantiles then
    note(handle, who, faults) -- the line of a client that leaves during the delay
    local ended = hold(handle, who, drawn(rule.quantiles))
    if ended == "overflow" then faults[index] = rule.number .. ":overflow" end
    if ended ~= "whole" then return false end
  end
  if rule.kind == "drop" then
    miss(faults, due, number)
    note(handle, who, faults)
    handle:streamInfo():dynamicMetadata():set("counterfault", "drop", "1")
    return true
  end
  return false
end

local function inject(handle, who, fields, path)
  local due, faults = {}, {}
  for _, rule in ipairs(who.arm.rules) do
    if matches(rule.match, fields, path) and (rule.dose >= 1 or math.random() < rule.dose) then
      due[#due + 1] = rule
    end
  end
  for number in ipairs(due) do
    if perform(handle, who, faults, due, number) then return end
  end
  note(handle, who, faults)
end
