-- XXH64 (Yann Collet, "xxHash fast digest algorithm", doc/xxhash_spec.md in
-- https://github.com/Cyan4973/xxHash). It reads eight bytes at a time, in little endian.
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

-- Returns a unit's position on the circle (0 to 2^32 - 1) and a number (0 to 2^32 - 1) by which the
-- user is counted: the two halves of the hash, as in proxy/experiments/cohorts.py.
local CIRCLE = 2 ^ 32

local function position_and_user(unit, seed)
  local found = digest(unit, seed)
  return CIRCLE - 1 - tonumber(found % 0x100000000ULL), tonumber(rshift(found, 32))
end
