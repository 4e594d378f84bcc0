-- Who a request belongs to, and the faults it gets: proxy/experiments/cohorts.py, tag.py and plan.py for Envoy.
--
-- The files of this directory are one program; proxy/engines/envoy/config/lua_program.py says in which order, and writes
-- DATA, which is what one listener has to know. Most bystanders never get here: bystanders.py.
local DATA = --[[DATA]] nil

local ffi, bit = require("ffi"), require("bit")
ffi.cdef [[
typedef struct { long s; long ns; } cf_time;
int clock_gettime(int, cf_time *);
int inet_pton(int, const char *, void *);
]]
