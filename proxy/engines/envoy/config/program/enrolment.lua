-- Enrolment: the first experiment whose arc holds a unit enrolls it. With many experiments the result
-- is remembered; for a few, hashing again is cheaper than remembering.
local arms, by_name = DATA.arms, {}
for _, arm in ipairs(arms) do
  by_name[arm.name] = arm
end

local HALF, FEW, MOST_CLAIMS = CIRCLE / 2, 4, 65536
-- With few experiments little is allocated, so that the garbage collector may run less often.
collectgarbage("setpause", #arms <= FEW and 400 or 200)
local claims, remembered = {}, 0

local function enrolment(arm, cohort, replicate, user)
  local text = arm.name .. "." .. cohort .. "." .. replicate
  return { arm = arm, cohort = cohort, replicate = replicate, user = user, text = text }
end

local function claim(unit)
  for i = 1, #arms do
    local arm = arms[i]
    local position, user = position_and_user(unit, arm.seed)
    if position < arm.experiment or (position >= HALF and position < arm.control) then
      local cohort = position < arm.experiment and "experiment" or "control"
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
