-- Headers are raw bytes with names in lower case; each line of a repeated header is a value.
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

-- The unit is the value of the first source that is present.
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
