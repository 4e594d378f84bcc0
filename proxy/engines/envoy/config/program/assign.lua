-- Returns the names of the metrics that this request counts for, joined by commas.
local function measured(arm, fields, path)
  local names = {}
  for _, metric in ipairs(arm.metrics) do
    if matches(metric.match, fields, path) then names[#names + 1] = metric.name end
  end
  return table.concat(names, ",")
end

-- Sends an enrolled request on a detour, injects its faults, or only notes its line.
local function prepare(handle, fields, who, path)
  local arm = who.arm
  who = { arm = arm, cohort = who.cohort, replicate = who.replicate, user = who.user,
    metrics = measured(arm, fields, path), path = "" }
  if arm.regex then
    who.path = path:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  end
  who.slot = begin(who)
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

-- Returns the enrolment that a trusted tag names; nil if its experiment is not live here.
local function enrolment_of_tag(tag, unit)
  local arm, user, _ = by_name[tag.experiment], nil, nil
  if not arm then return end
  if unit then _, user = position_and_user(unit, arm.seed) end
  return enrolment(arm, tag.cohort, tag.replicate, user)
end

-- Replaces a request's tag by its enrolment, if it has one, and prepares it for its cohort.
local function enrol(handle, fields, unit, found, carries)
  local tag = carries and strip(fields) or nil
  if tag and not trusted(handle) then tag = nil end
  local who, path = nil, fields:get(":path"):match("^[^?]*")
  if #arms > 0 and not DATA.protect[path] and leased() then
    if tag then who = enrolment_of_tag(tag, unit) else who = found or nil end
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
      if unit then
        fields:add(DATA.sticky, unit)
        -- Not strict: while the node is down, Envoy's own ring chooses another one for its units.
        if #positions > 0 then handle:setUpstreamOverrideHost(node_of(unit), false) end
      end
    end
    if unit and #arms > 0 then found = enrolment_of(unit) end
  end
  local carries = tagged(fields)
  if found or carries then enrol(handle, fields, unit, found, carries) end
end
