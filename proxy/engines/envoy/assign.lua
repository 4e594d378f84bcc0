-- Who a request belongs to, and the faults it gets: proxy/cohorts.py, tag.py and plan.py for Envoy.
--
-- A bystander leaves `envoy_on_request` after a hash or a few, or one look into `claims`. DATA is what one
-- listener has to know; proxy/engines/envoy/lua.py writes it.
local DATA = --[[DATA]] nil

local ffi, bit = require("ffi"), require("bit")
ffi.cdef [[
typedef struct { long s; long ns; } cf_time;
int clock_gettime(int, cf_time *);
int inet_pton(int, const char *, void *);
]]

-- xxh64 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md): eight bytes at a time, little endian.
local rol, bxor, rshift = bit.rol, bit.bxor, bit.rshift
local P1, P2, P3 = 0x9E3779B185EBCA87ULL, 0xC2B2AE3D27D4EB4FULL, 0x165667B19E3779F9ULL
local P4, P5 = 0x85EBCA77C2B2AE63ULL, 0x27D4EB2F165667C5ULL

local function lane(sum, eight)
  return rol(sum + eight * P2, 31) * P1
end

local function stripes(data, size, seed)
  local a, b, c, d, from = seed + P1 + P2, seed + P2, seed, seed - P1, 0
  while size - from >= 32 do
    local word = ffi.cast("const uint64_t *", data + from)
    a, b, c, d = lane(a, word[0]), lane(b, word[1]), lane(c, word[2]), lane(d, word[3])
    from = from + 32
  end
  local sum = rol(a, 1) + rol(b, 7) + rol(c, 12) + rol(d, 18)
  sum = bxor(sum, lane(0ULL, a)) * P1 + P4
  sum = bxor(sum, lane(0ULL, b)) * P1 + P4
  sum = bxor(sum, lane(0ULL, c)) * P1 + P4
  return bxor(sum, lane(0ULL, d)) * P1 + P4, from
end

local function digest(text, seed)
  local data, size = ffi.cast("const uint8_t *", text), #text
  local sum, from = seed + P5, 0
  if size >= 32 then sum, from = stripes(data, size, seed) end
  sum = sum + size
  while size - from >= 8 do
    local eight = ffi.cast("const uint64_t *", data + from)[0]
    sum, from = rol(bxor(sum, lane(0ULL, eight)), 27) * P1 + P4, from + 8
  end
  if size - from >= 4 then
    local four = ffi.cast("const uint32_t *", data + from)[0]
    sum, from = rol(bxor(sum, four * P1), 23) * P2 + P3, from + 4
  end
  while from < size do
    sum, from = rol(bxor(sum, data[from] * P5), 11) * P1, from + 1
  end
  sum = bxor(sum, rshift(sum, 33)) * P2
  sum = bxor(sum, rshift(sum, 29)) * P3
  return bxor(sum, rshift(sum, 32))
end

-- A place on the circle, and a number to count the user by: proxy/cohorts.py says which half is what.
local CIRCLE = 2 ^ 32

local function place_and_user(unit, seed)
  local found = digest(unit, seed)
  return CIRCLE - 1 - tonumber(found % 0x100000000ULL), tonumber(rshift(found, 32))
end

-- Chance: Envoy seeds every interpreter alike.
do
  local file = io.open("/dev/urandom", "rb")
  local seed = file and file:read(4)
  if file then file:close() end
  local a, b, c, d = (seed or "seed"):byte(1, 4)
  math.randomseed(a + 256 * (b + 256 * (c + 256 * d)))
end

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

-- Headers: raw bytes, names in lower case; every line of a repeated one is a value of its own.
local function values(fields, name)
  local found = {}
  for i = 0, fields:getNumValues(name) - 1 do found[i + 1] = fields:getAtIndex(name, i) end
  return found
end

local function trimmed(text)
  return (text:match("^%s*(.-)%s*$"))
end

local function pieces(text, separator)
  local found, from = {}, 1
  while true do
    local at = text:find(separator, from, true)
    found[#found + 1] = text:sub(from, at and at - 1)
    if not at then return found end
    from = at + 1
  end
end

-- The unit: the first source present wins.
local find = {}

function find.header(fields, name)
  return fields:getAtIndex(name, 0)
end

function find.cookie(fields, name)
  for _, value in ipairs(values(fields, "cookie")) do
    for _, pair in ipairs(pieces(value, ";")) do
      local label, content = trimmed(pair):match("^([^=]*)=(.*)$")
      if label == name then return content end
    end
  end
end

local function member(text)
  local label, content = text:match("^[^;]*"):match("^([^=]*)=(.*)$")
  if label then return trimmed(label), content end
end

function find.baggage(fields, name)
  for _, value in ipairs(values(fields, "baggage")) do
    for _, text in ipairs(pieces(value, ",")) do
      local label, content = member(text)
      if label == name then return trimmed(content) end
    end
  end
end

local only = #DATA.sources == 1 and DATA.sources[1][1] == "header" and DATA.sources[1][2] or nil

local function unit_of(fields)
  if only then
    local value = fields:getAtIndex(only, 0)
    return value ~= "" and value or nil
  end
  for _, source in ipairs(DATA.sources) do
    local value = find[source[1]](fields, source[2])
    if value and value ~= "" then return value end
  end
end

-- Enrolment: the first arc that claims a unit has it. What was found is remembered where many are
-- asked; a hash or a few are cheaper than the memory.
local arms, by_name = DATA.arms, {}
for _, arm in ipairs(arms) do
  by_name[arm.name] = arm
end

local HALF, FEW, MOST_CLAIMS = CIRCLE / 2, 4, 65536
-- Little is kept, and what is thrown away may lie about for a while.
collectgarbage("setpause", #arms <= FEW and 400 or 200)
local claims, remembered = {}, 0

local function enrolment(arm, cohort, replicate, user)
  local text = arm.name .. "." .. cohort .. "." .. replicate
  return { arm = arm, cohort = cohort, replicate = replicate, user = user, text = text }
end

local function claim(unit)
  for i = 1, #arms do
    local arm = arms[i]
    local place, user = place_and_user(unit, arm.seed)
    if place < arm.experiment or (place >= HALF and place < arm.control) then
      local cohort = place < arm.experiment and "experiment" or "control"
      return enrolment(arm, cohort, user % 64, user)
    end
  end
  return false
end

local function claimed(unit)
  if #arms <= FEW then return claim(unit) end
  local found = claims[unit]
  if found ~= nil then return found end
  found = claim(unit)
  if remembered >= MOST_CLAIMS then claims, remembered = {}, 0 end
  claims[unit], remembered = found, remembered + 1
  return found
end

-- The cohort tag: `x-counterfault` in every spelling, and a baggage member.
local HEADERS, MEMBER, BAGGAGE_LIMIT = { "x-counterfault", "x_counterfault" }, "counterfault.tag", 8192

local function parsed(value)
  local name, cohort, digits = trimmed(value):match("^([a-z0-9-]+)%.(%l+)%.(%d%d?)$")
  if not name or #name > 40 or (cohort ~= "control" and cohort ~= "experiment") then return end
  if (#digits == 2 and digits:sub(1, 1) == "0") or tonumber(digits) >= 64 then return end
  return { experiment = name, cohort = cohort, replicate = tonumber(digits),
    text = name .. "." .. cohort .. "." .. digits }
end

local function tagged(fields)
  if fields:get(HEADERS[1]) or fields:get(HEADERS[2]) then return true end
  local baggage = fields:get("baggage")
  return baggage and baggage:find(MEMBER, 1, true)
end

local function rewrite(fields, list)
  if #list == 1 and fields:getNumValues("baggage") == 1 then
    fields:replace("baggage", list[1]) -- where it was
    return
  end
  fields:remove("baggage")
  for _, value in ipairs(list) do fields:add("baggage", value) end
end

local function strip(fields)
  local tag, inner, kept, changed
  for _, name in ipairs(HEADERS) do
    for _, value in ipairs(values(fields, name)) do tag = tag or parsed(value) end
    fields:remove(name)
  end
  kept, changed = {}, false
  for _, value in ipairs(values(fields, "baggage")) do
    if value:find(MEMBER, 1, true) then
      local rest = {}
      for _, text in ipairs(pieces(value, ",")) do
        local label, content = member(text)
        if label == MEMBER or trimmed(text:match("^[^;]*")) == MEMBER then
          inner = inner or (content and parsed(content))
        else
          rest[#rest + 1] = text
        end
      end
      value, changed = trimmed(table.concat(rest, ",")), true
    end
    if value ~= "" then kept[#kept + 1] = value end
  end
  if changed then rewrite(fields, kept) end
  return tag or inner
end

local function carry(fields, text)
  local list, used, said = values(fields, "baggage"), 0, MEMBER .. "=" .. text
  for _, value in ipairs(list) do used = used + #value + 1 end
  local fits = used + #said <= BAGGAGE_LIMIT
  if fits and #list > 0 then
    local last = list[#list]
    list[#list] = trimmed(last) ~= "" and last .. "," .. said or said
    rewrite(fields, list)
  end
  fields:add(HEADERS[1], text)
  if fits and #list == 0 then fields:add("baggage", said) end
end

-- Trust: the peer that the connection comes from, as 4 or 16 bytes.
local FAMILIES = { [4] = 2, [16] = 10 }
local address = ffi.new("uint8_t[16]")

local function packed(text)
  for size, family in pairs(FAMILIES) do
    if ffi.C.inet_pton(family, text, address) == 1 then
      local raw = ffi.string(address, size)
      if size == 16 and raw:sub(1, 12) == ("\0"):rep(10) .. "\255\255" then return raw:sub(13) end
      return raw
    end
  end
end

local function within(raw, network, length)
  if #raw ~= #network then return false end
  for i = 1, #raw do
    local left = length - 8 * (i - 1)
    if left <= 0 then return true end
    local mask = left >= 8 and 255 or bit.band(bit.lshift(255, 8 - left), 255)
    if bit.band(bit.bxor(raw:byte(i), network:byte(i)), mask) ~= 0 then return false end
  end
  return true
end

local function trusted(handle)
  if #DATA.trusted == 0 then return false end
  local peer = handle:streamInfo():downstreamDirectRemoteAddress()
  local host = peer:match("^%[([^%]%%]*)") or peer:match("^(.*):%d+$") or peer
  local raw = packed(host)
  for _, network in ipairs(DATA.trusted) do
    if raw and within(raw, network[1], network[2]) then return true end
  end
  return false
end

-- Which requests a fault or a metric is about; Python looks at a metric's regex later.
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

-- Faults: what one request gets, in the order of the file.
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

local function drawn(quantiles)
  local place = math.random() * POINTS
  local below = math.floor(place)
  local low = quantiles[below + 1]
  local wait = low + (quantiles[below + 2] - low) * (place - below)
  return math.floor(wait + math.random()) -- whole milliseconds, and the mean stays
end

-- Wait: the supervisor never answers, so that the time-out is the fault; it hangs up to end it.
local function hold(handle, who, milliseconds)
  if milliseconds < 1 then return "whole" end
  local head = { [":method"] = "GET", [":authority"] = "hold",
    [":path"] = "/" .. who.arm.name .. "/" .. who.arm.epoch }
  local answer, body = handle:httpCall("counterfault-hold", head, "", milliseconds)
  if answer[":status"] == "504" then return "whole" end
  return body and body:find("overflow", 1, true) and "overflow" or "cut"
end

local function note(handle, who, faults, status)
  local line = table.concat({ who.arm.name, who.arm.epoch, who.cohort, who.replicate,
    who.user or "", who.metrics, who.path, status or "", table.concat(faults, ",") }, "\t")
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

-- What was drawn and comes after the end of the request.
local function miss(faults, due, after)
  for i = after + 1, #due do faults[#faults + 1] = due[i].number .. ":failed" end
end

-- True if the request ends here.
local function perform(handle, who, faults, due, number)
  local rule, place = due[number], #faults + 1
  if not leased() then
    faults[place] = rule.number .. ":failed"
    return false
  end
  faults[place] = rule.number .. ":" .. (DATA.active_faults > 0 and "performed" or "overflow")
  if DATA.active_faults == 0 then return false end
  if rule.kind == "respond" then
    miss(faults, due, number)
    answer(handle, who, faults, rule)
    return true
  end
  if rule.quantiles then
    note(handle, who, faults) -- should the client leave meanwhile
    local ended = hold(handle, who, drawn(rule.quantiles))
    if ended == "overflow" then faults[place] = rule.number .. ":overflow" end
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

local function measured(arm, fields, path)
  local names = {}
  for _, metric in ipairs(arm.metrics) do
    if matches(metric.match, fields, path) then names[#names + 1] = metric.name end
  end
  return table.concat(names, ",")
end

local function prepare(handle, fields, who, path)
  local arm = who.arm
  who = { arm = arm, cohort = who.cohort, replicate = who.replicate, user = who.user,
    metrics = measured(arm, fields, path), path = "" }
  if arm.regex then
    who.path = path:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  end
  if arm.detour then
    note(handle, who, {})
    handle:streamInfo():dynamicMetadata():set("counterfault", "detour", "1")
    handle:clearRouteCache()
  elseif arm.running and who.cohort == "experiment" and #arm.rules > 0 then
    inject(handle, who, fields, path)
  else
    note(handle, who, {})
  end
end

local function believed_one(tag, unit)
  local arm, user, _ = by_name[tag.experiment], nil, nil
  if not arm then return end
  if unit then _, user = place_and_user(unit, arm.seed) end
  return enrolment(arm, tag.cohort, tag.replicate, user)
end

local function enrol(handle, fields, unit, found, carries)
  local tag = carries and strip(fields) or nil
  if tag and not trusted(handle) then tag = nil end
  local who, path = nil, fields:get(":path"):match("^[^?]*")
  if #arms > 0 and not DATA.protect[path] and leased() then
    if tag then who = believed_one(tag, unit) else who = found or nil end
  end
  local text = who and who.text or tag and tag.text
  if text then carry(fields, text) end
  if who then prepare(handle, fields, who, path) end
end

function envoy_on_request(handle)
  local fields, unit, found = handle:headers(), nil, nil
  if #arms > 0 or DATA.sticky then
    unit = unit_of(fields)
    if DATA.sticky then
      fields:remove(DATA.sticky)
      if unit then fields:add(DATA.sticky, unit) end
    end
    if unit and #arms > 0 then found = claimed(unit) end
  end
  local carries = tagged(fields)
  if found or carries then enrol(handle, fields, unit, found, carries) end
end
