-- The upstream of a unit, where there are several: the ring of proxy/engines/upstream_ring.py, with
-- its positions in ascending order.
local positions, owners = {}, {}
for position, owner in (DATA.ring or ""):gmatch("(%d+):([^,]+)") do
  positions[#positions + 1], owners[#owners + 1] = tonumber(position), owner
end

local function node_of(unit)
  local key = tonumber(digest(unit, 0ULL) % 0x100000000ULL)
  local low, high = 1, #positions + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if key < positions[middle] then high = middle else low = middle + 1 end
  end
  return owners[low] or owners[1]
end
