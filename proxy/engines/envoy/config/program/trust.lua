-- Trust: a tag counts if the connection's peer is in a trusted network. Addresses are 4 or 16 bytes.
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
