-- Enrolment: the first experiment whose arc holds a unit enrolls it. With many experiments the result
-- is remembered; for a few, hashing again is cheaper than remembering.
local arms, by_name = DATA.arms, {}
for _, arm in ipairs(arms) do
  by_name[arm.name] = arm
end

local HALF, FEW, MOST_REMEMBERED = CIRCLE / 2, 4, 65536
-- With few experiments little is allocated, so that the garbage collector may run less often.
collectgarbage("setpause", #arms <= FEW and 400 or 200)
local enrolments, remembered = {}, 0

local function enrolment(arm, cohort, replicate, user)
  local text = arm.name .. "." .. cohort .. "." .. replicate
  return { arm = arm, cohort = cohort, replicate = replicate, user = user, text = text }
end

local function first_enrolment(unit)
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

local function enrolment_of(unit)
  if #arms <= FEW then return first_enrolment(unit) end
  local found = enrolments[unit]
  if found ~= nil then return found end
  found = first_enrolment(unit)
  if remembered >= MOST_REMEMBERED then enrolments, remembered = {}, 0 end
  enrolments[unit], remembered = found, remembered + 1
  return found
end
