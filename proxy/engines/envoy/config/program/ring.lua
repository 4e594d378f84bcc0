-- Which of several upstreams a unit goes to: the ring of proxy/experiments/cohorts.py, its places in order.
local places, owners = {}, {}
for place, owner in (DATA.ring or ""):gmatch("(%d+):([^,]+)") do
  places[#places + 1], owners[#owners + 1] = tonumber(place), owner
end

local function node_of(unit)
  local key = tonumber(digest(unit, 0ULL) % 0x100000000ULL)
  local low, high = 1, #places + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if key < places[middle] then high = middle else low = middle + 1 end
  end
  return owners[low] or owners[1]
end
