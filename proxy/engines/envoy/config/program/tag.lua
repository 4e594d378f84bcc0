-- The cohort tag: the header `x-counterfault`, also with an underscore, and a member of `baggage`.
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
    fields:replace("baggage", list[1]) -- in its present position
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
