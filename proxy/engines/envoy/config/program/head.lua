-- Assigns a request to a cohort and performs its faults. The rules are those of
-- proxy/experiments/cohorts.py, proxy/experiments/cohort_tag.py and proxy/engines/plan.py.
--
-- The files of this directory are one program. proxy/engines/envoy/config/lua_program.py joins them
-- and writes DATA, the settings of one listener. Most bystanders never enter it, because
-- bystander_filter.py recognises them before.
local DATA = --[[DATA]] nil

local ffi, bit = require("ffi"), require("bit")
ffi.cdef [[
typedef struct { long s; long ns; } cf_time;
int clock_gettime(int, cf_time *);
int inet_pton(int, const char *, void *);
int open(const char *, int, ...);
int close(int);
long write(int, const void *, unsigned long);
]]
