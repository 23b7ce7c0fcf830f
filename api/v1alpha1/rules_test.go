package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// rule is one case of a table: edits of an accepted object, and what the API server says to it, nothing if it accepts.
type rule struct {
	edits []edit
	want  string
}

func TestWhatIsAcceptedOnCreate(t *testing.T) {
	day := "2026-12-01"
	tables := map[string]map[string]rule{
		"SupportAccessGrant": {
			"a name of 63 characters":               {[]edit{set("metadata.name", strings.Repeat("a", 63))}, ""},
			"a name of 64 characters":               {[]edit{set("metadata.name", strings.Repeat("a", 64))}, "must be a DNS label"},
			"a name with a dot":                     {[]edit{set("metadata.name", "case.4711")}, "must be a DNS label"},
			"no spec":                               {[]edit{unset("spec")}, "spec: Required value"},
			"no duration and no expirationTime":     {[]edit{unset("spec.duration")}, "give exactly one of duration and expirationTime"},
			"duration and expirationTime":           {[]edit{set("spec.expirationTime", `"2026-12-03T00:00:00Z"`)}, "give exactly one of duration and expirationTime"},
			"3d":                                    {[]edit{set("spec.duration", "3d")}, "for 3 days write 72h"},
			"3 days":                                {[]edit{set("spec.duration", "3 days")}, "for 3 days write 72h"},
			"1w":                                    {[]edit{set("spec.duration", "1w")}, "for 3 days write 72h"},
			"garbage 3d":                            {[]edit{set("spec.duration", "garbage 3d")}, "for 3 days write 72h"},
			"-1h":                                   {[]edit{set("spec.duration", "-1h")}, "for 3 days write 72h"},
			"1.5h":                                  {[]edit{set("spec.duration", "1.5h")}, "for 3 days write 72h"},
			"minutes before hours":                  {[]edit{set("spec.duration", "30m1h")}, "for 3 days write 72h"},
			"a line after the duration":             {[]edit{set("spec.duration", `"24h\n"`)}, "for 3 days write 72h"},
			"hours that would overflow":             {[]edit{set("spec.duration", "9999999h")}, "for 3 days write 72h"},
			"an empty duration":                     {[]edit{set("spec.duration", `""`)}, "spec.duration: Invalid value"},
			"a duration that is a number":           {[]edit{set("spec.duration", "24")}, "must be of type string"},
			"zero":                                  {[]edit{set("spec.duration", "0h0m0s")}, "spec.duration: Invalid value: \"0h0m0s\": must be longer than zero"},
			"one second":                            {[]edit{set("spec.duration", "1s")}, ""},
			"the longest that can be written":       {[]edit{set("spec.duration", "99999h999999m99s")}, ""},
			"1h30m":                                 {[]edit{set("spec.duration", "1h30m")}, ""},
			"an expirationTime":                     {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2026-12-03T00:00:00Z"`)}, ""},
			"a small t":                             {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2026-12-03t00:00:00Z"`)}, "spec.expirationTime"},
			"a small z":                             {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2026-12-03T00:00:00z"`)}, "spec.expirationTime"},
			"a day that does not exist":             {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2026-02-30T00:00:00Z"`)}, "spec.expirationTime"},
			"a leap second":                         {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2026-12-31T23:59:60Z"`)}, "spec.expirationTime"},
			"an offset of a whole day":              {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2026-12-03T00:00:00+24:00"`)}, "spec.expirationTime"},
			"the year zero":                         {[]edit{unset("spec.duration"), set("spec.expirationTime", `"0000-01-01T00:00:00Z"`)}, "spec.expirationTime"},
			"a list where an instant belongs":       {[]edit{set("spec.startTime", "[]")}, "must be an instant"},
			"the last instant of the age":           {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2999-12-31T23:59:59Z"`)}, ""},
			"an instant of the next age, in UTC":    {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2999-12-31T23:59:59-00:01"`)}, "must be an instant"},
			"the first instant of the age":          {[]edit{unset("spec.duration"), unset("spec.startTime"), set("spec.expirationTime", `"2000-01-01T00:00:00Z"`)}, ""},
			"an instant of the age before, in UTC":  {[]edit{unset("spec.duration"), unset("spec.startTime"), set("spec.expirationTime", `"2000-01-01T00:00:00+00:01"`)}, "must be an instant"},
			"a list where a status's instant is":    {[]edit{set("status.startTime", "[true]")}, "must be an instant"},
			"a list where a condition's instant is": {[]edit{set("status.conditions[0].lastTransitionTime", "[]")}, "must be an instant"},
			"a fraction of a second":                {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2026-12-03T00:00:00.5Z"`)}, "spec.expirationTime"},
			"no time zone":                          {[]edit{unset("spec.duration"), set("spec.expirationTime", `"2026-12-03T00:00:00"`)}, "spec.expirationTime"},
			"a date without a time":                 {[]edit{unset("spec.duration"), set("spec.expirationTime", "2026-12-03")}, "spec.expirationTime"},
			"an end at the start":                   {[]edit{unset("spec.duration"), set("spec.expirationTime", `"`+day+`T18:00:00Z"`)}, "must be before spec.expirationTime"},
			"an end at the start, in another zone":  {[]edit{unset("spec.duration"), set("spec.expirationTime", `"`+day+`T19:00:00+01:00"`)}, "must be before spec.expirationTime"},
			"an end a second after the start":       {[]edit{unset("spec.duration"), set("spec.expirationTime", `"`+day+`T18:00:01Z"`)}, ""},
			"no start":                              {[]edit{unset("spec.startTime")}, ""},
			"no reason":                             {[]edit{unset("spec.reason")}, "spec.reason: Required value"},
			"an empty reason":                       {[]edit{set("spec.reason", `""`)}, "spec.reason: Invalid value"},
			"a reason of 1024 characters":           {[]edit{set("spec.reason", strings.Repeat("a", 1024))}, ""},
			"a reason of 1025 characters":           {[]edit{set("spec.reason", strings.Repeat("a", 1025))}, "spec.reason: Too long"},
			"no engineer":                           {[]edit{set("spec.engineers", "[]")}, "spec.engineers: Invalid value"},
			"the same engineer twice":               {[]edit{set("spec.engineers", "[{name: ana}, {name: ana}]")}, "Duplicate value"},
			"16 engineers":                          {[]edit{set("spec.engineers", engineers(16))}, ""},
			"17 engineers":                          {[]edit{set("spec.engineers", engineers(17))}, "spec.engineers: Too many"},
			"an engineer in capitals":               {[]edit{set("spec.engineers[0].name", "Ana@vendor.example")}, "spec.engineers[0].name"},
			"an engineer with a colon":              {[]edit{set("spec.engineers[0].name", `"system:masters"`)}, "spec.engineers[0].name"},
			"an engineer of two lines":              {[]edit{set("spec.engineers[0].name", `"ana\nben"`)}, "spec.engineers[0].name"},
			"an engineer of 128 characters":         {[]edit{set("spec.engineers[0].name", strings.Repeat("a", 128))}, ""},
			"an engineer of 129 characters":         {[]edit{set("spec.engineers[0].name", strings.Repeat("a", 129))}, "spec.engineers[0].name: Too long"},
			"a key of another kind":                 {[]edit{set("spec.engineers[0].publicKey", `"ssh-rsa AAAA"`)}, "spec.engineers[0].publicKey"},
			"a private age key":                     {[]edit{set("spec.engineers[0].publicKey", "AGE-SECRET-KEY-1QQ")}, "spec.engineers[0].publicKey"},
			"no roles":                              {[]edit{unset("spec.roles")}, ""},
			"an empty list of roles":                {[]edit{set("spec.roles", "[]")}, "spec.roles: Invalid value"},
			"four roles":                            {[]edit{set("spec.roles", "[a, b, c, d]")}, ""},
			"five roles":                            {[]edit{set("spec.roles", "[a, b, c, d, e]")}, "spec.roles: Too many"},
			"a role twice":                          {[]edit{set("spec.roles", "[a, a]")}, "Duplicate value"},
			"a role that is a path":                 {[]edit{set("spec.roles", "[a/b]")}, "spec.roles[0]"},
			"no scope":                              {[]edit{unset("spec.scope")}, ""},
			"an empty scope":                        {[]edit{set("spec.scope", "{}")}, "give exactly one of namespaces and cluster: true"},
			"the cluster":                           {[]edit{set("spec.scope", "{cluster: true}")}, ""},
			"not the cluster":                       {[]edit{set("spec.scope", "{cluster: false}")}, "give exactly one of namespaces and cluster: true"},
			"namespaces and the cluster":            {[]edit{set("spec.scope.cluster", "true")}, "give exactly one of namespaces and cluster: true"},
			"no namespace":                          {[]edit{set("spec.scope.namespaces", "[]")}, "spec.scope.namespaces: Invalid value"},
			"64 namespaces":                         {[]edit{set("spec.scope.namespaces", names(64))}, ""},
			"65 namespaces":                         {[]edit{set("spec.scope.namespaces", names(65))}, "spec.scope.namespaces: Too many"},
			"a namespace twice":                     {[]edit{set("spec.scope.namespaces", "[a, a]")}, "Duplicate value"},
			"a namespace with an asterisk":          {[]edit{set("spec.scope.namespaces", `["*"]`)}, "spec.scope.namespaces[0]"},
			"an unknown transport":                  {[]edit{set("spec.transport", "Telnet")}, "spec.transport: Unsupported value"},
			"no case":                               {[]edit{unset("spec.case")}, ""},
			"a case without an id":                  {[]edit{unset("spec.case.id")}, "spec.case.id: Required value"},
			"an id with a space":                    {[]edit{set("spec.case.id", "CASE 4711")}, "spec.case.id"},
			"an id of 64 characters":                {[]edit{set("spec.case.id", strings.Repeat("a", 64))}, ""},
			"an id of 65 characters":                {[]edit{set("spec.case.id", strings.Repeat("a", 65))}, "spec.case.id: Too long"},
			"a link that is not https":              {[]edit{set("spec.case.url", "http://support.vendor.example")}, "spec.case.url"},
			"a link that is a script":               {[]edit{set("spec.case.url", "'javascript:alert(1)'")}, "spec.case.url"},
			"an empty stamp":                        {[]edit{set("spec.grantedBy", `""`)}, "spec.grantedBy"},
			"flagged content":                       {[]edit{set("spec.flaggedContent", "Allow"), set("spec.roles", "[support-access-flagged]"), set("spec.transport", "Gateway")}, ""},
			"flagged content by the default":        {[]edit{set("spec.flaggedContent", "Allow"), set("spec.roles", "[support-access-flagged]"), unset("spec.transport")}, ""},
			"flagged content without its role":      {[]edit{set("spec.flaggedContent", "Allow"), set("spec.transport", "Gateway")}, "spec.flaggedContent: Allow and the role support-access-flagged go together"},
			"the role of flagged content alone":     {[]edit{set("spec.roles", "[support-access-flagged]"), set("spec.transport", "Gateway")}, "spec.flaggedContent: Allow and the role support-access-flagged go together"},
			"flagged content, Direct":               {[]edit{set("spec.flaggedContent", "Allow"), set("spec.roles", "[support-access-flagged]")}, "spec.transport: Direct is not for flaggedContent"},
			"flagged content of the cluster":        {[]edit{set("spec.flaggedContent", "Allow"), set("spec.roles", "[support-access-flagged]"), set("spec.transport", "Gateway"), set("spec.scope", "{cluster: true}")}, "spec.scope: name the namespaces"},
			"flagged content, denied":               {[]edit{set("spec.flaggedContent", "Deny")}, "spec.flaggedContent: Unsupported value"},
			"a status with a small t":               {[]edit{set("status.endTime", `"2026-12-02t18:00:01Z"`)}, "status.endTime"},
			"a condition with a small t":            {[]edit{set("status.conditions[0].lastTransitionTime", `"2026-12-02t18:00:01Z"`)}, "status.conditions"},
			"a condition with a small z":            {[]edit{set("status.conditions[0].lastTransitionTime", `"2026-12-02T18:00:01z"`)}, "status.conditions"},
			"a condition with an odd offset":        {[]edit{set("status.conditions[0].lastTransitionTime", `"2026-12-02T18:00:01+99:99"`)}, "status.conditions"},
			"a condition before our time":           {[]edit{set("status.conditions[0].lastTransitionTime", `"1999-12-31T23:59:59Z"`)}, "lastTransitionTime: must be an instant"},
			"a condition at the turn of the age":    {[]edit{set("status.conditions[0].lastTransitionTime", `"2000-01-01T00:00:00Z"`)}, ""},
		},
		"SupportAccessDecision": {
			"shorten without an end":            {[]edit{unset("spec.expirationTime")}, "given with action Shorten, and only then"},
			"revoke with an end":                {[]edit{set("spec.action", "Revoke")}, "given with action Shorten, and only then"},
			"revoke":                            {[]edit{set("spec.action", "Revoke"), unset("spec.expirationTime")}, ""},
			"approve":                           {[]edit{set("spec.action", "Approve"), unset("spec.expirationTime")}, ""},
			"approve a request":                 {[]edit{set("spec", "{action: Approve, reason: yes it is, target: {request: r}}")}, "Approve takes grant; a request is answered by a grant whose spec.requestRef names it"},
			"deny a request":                    {[]edit{set("spec", "{action: Deny, reason: not now, target: {request: r}}")}, ""},
			"approve one grant of a name":       {[]edit{set("spec", "{action: Approve, reason: yes it is, target: {grant: g, uid: u}, authority: Cluster}")}, ""},
			"the UID of no grant":               {[]edit{set("spec", "{action: Revoke, reason: stop, target: {namespace: All, uid: u}}")}, "spec.target.uid: given with grant, and only then"},
			"an unknown authority":              {[]edit{set("spec.authority", "God")}, "spec.authority: Unsupported value"},
			"approve a namespace":               {[]edit{set("spec", "{action: Approve, reason: yes it is, target: {namespace: All}}")}, "Approve takes grant"},
			"deny the cluster":                  {[]edit{set("spec", "{action: Deny, reason: not now, target: {cluster: All}}")}, "Deny takes grant or request"},
			"shorten a namespace":               {[]edit{set("spec.target", "{namespace: All}")}, "Shorten takes grant"},
			"hand over to nobody in particular": {[]edit{unset("spec.expirationTime"), set("spec.action", "HandOver")}, "HandOver takes grant and engineer"},
			"hand over without a grant":         {[]edit{unset("spec.expirationTime"), set("spec.action", "HandOver"), set("spec.target", "{namespace: All, engineer: ana}")}, "HandOver takes grant and engineer"},
			"shorten for one engineer":          {[]edit{set("spec.target.engineer", "ana")}, "narrows a Revoke to one person"},
			"revoke for one engineer":           {[]edit{set("spec", "{action: Revoke, reason: left, target: {grant: g, engineer: ana}}")}, ""},
			"revoke a request":                  {[]edit{set("spec", "{action: Revoke, reason: no need, target: {request: r}}")}, "a request is denied, not revoked"},
			"revoke the cluster":                {[]edit{set("spec", "{action: Revoke, reason: stop, target: {cluster: All}}")}, ""},
			"no target":                         {[]edit{set("spec.target", "{}")}, "give exactly one of grant, request, namespace and cluster"},
			"a grant and its namespace":         {[]edit{set("spec.target.namespace", "All")}, "give exactly one of grant, request, namespace and cluster"},
			"a namespace by name":               {[]edit{set("spec", "{action: Revoke, reason: stop, target: {namespace: mail}}")}, "spec.target.namespace: Unsupported value"},
			"no reason":                         {[]edit{unset("spec.reason")}, "spec.reason: Required value"},
			"an unknown action":                 {[]edit{set("spec.action", "Extend")}, "spec.action: Unsupported value"},
			"an end on a day that is not":       {[]edit{set("spec.expirationTime", `"2026-02-30T00:00:00Z"`)}, "spec.expirationTime"},
			"more grants than can be counted":   {[]edit{set("status.grants", "2147483648")}, "status.grants"},
			"as many grants as can be counted":  {[]edit{set("status.grants", "2147483647")}, ""},
			"a condition with a garbage suffix": {[]edit{set("status.conditions[0].lastTransitionTime", `"2026-12-02T18:00:01Ztail"`)}, "status.conditions"},
		},
		"SupportAccessPolicy": {
			"a name of 63 characters":              {[]edit{set("metadata.name", strings.Repeat("a", 63))}, ""},
			"a name of 64 characters":              {[]edit{set("metadata.name", strings.Repeat("a", 64))}, "must be a DNS label of at most 63 characters"},
			"only what is required":                {[]edit{set("spec", "{roles: [{name: r}], transports: [Direct]}")}, ""},
			"no roles":                             {[]edit{set("spec.roles", "[]")}, "spec.roles: Invalid value"},
			"a role twice":                         {[]edit{set("spec.roles", "[{name: r}, {name: r}]")}, "Duplicate value"},
			"no transport":                         {[]edit{set("spec.transports", "[]")}, "spec.transports: Invalid value"},
			"a transport twice":                    {[]edit{set("spec.transports", "[Direct, Direct]")}, "Duplicate value"},
			"no scope":                             {[]edit{set("spec.scopes", "[]")}, "spec.scopes: Invalid value"},
			"a menu item at the limit":             {[]edit{set("spec.durations", "[168h]")}, ""},
			"a menu item beyond the limit":         {[]edit{set("spec.durations", "[168h1s]")}, "spec.durations: each must be at most spec.maxDuration"},
			"a menu item of nothing":               {[]edit{set("spec.durations", "[0s]")}, "spec.durations[0]: Invalid value: \"0s\": must be longer than zero"},
			"a menu in days":                       {[]edit{set("spec.durations", "[3d]")}, "for 3 days write 72h"},
			"a limit in days":                      {[]edit{set("spec.maxDuration", "3d")}, "for 3 days write 72h"},
			"a limit of nothing":                   {[]edit{set("spec.maxDuration", "0s")}, "spec.maxDuration: Invalid value: \"0s\": must be longer than zero"},
			"a start delay of nothing":             {[]edit{set("spec.maxStartDelay", "0s")}, ""},
			"a start delay in days":                {[]edit{set("spec.maxStartDelay", "3d")}, "for 3 days write 72h"},
			"a role's limit at the policy's":       {[]edit{set("spec.roles[1].maxDuration", "168h")}, ""},
			"a role's limit beyond the policy's":   {[]edit{set("spec.roles[1].maxDuration", "168h1s")}, "spec.roles[].maxDuration: must be at most spec.maxDuration"},
			"a role's limit of nothing":            {[]edit{set("spec.roles[1].maxDuration", "0m")}, "must be longer than zero"},
			"a role's limit in days":               {[]edit{set("spec.roles[1].maxDuration", "1d")}, "for 3 days write 72h"},
			"a casePattern that does not compile":  {[]edit{set("spec.casePattern", `"[a-"`)}, "must be a regular expression (RE2)"},
			"an engineerPattern with a lookahead":  {[]edit{set("spec.engineerPattern", `"a(?!b)"`)}, "must be a regular expression (RE2)"},
			"a pattern that matches nothing":       {[]edit{set("spec.casePattern", `"^$"`)}, ""},
			"a pattern that matches anything":      {[]edit{set("spec.casePattern", `".*"`)}, ""},
			"a reader that is a ServiceAccount":    {[]edit{set("spec.credentialReaders", "[{kind: ServiceAccount, name: a, namespace: b}]")}, ""},
			"a ServiceAccount without a namespace": {[]edit{set("spec.credentialReaders", "[{kind: ServiceAccount, name: a}]")}, "given with kind ServiceAccount, and only then"},
			"a user with a namespace":              {[]edit{set("spec.credentialReaders", "[{kind: User, name: a, namespace: b}]")}, "given with kind ServiceAccount, and only then"},
			"a never-rule without verbs":           {[]edit{set("spec.neverAllow", `[{apiGroups: [""], resources: [pods]}]`)}, "spec.neverAllow[0].verbs: Required value"},
			"a never-rule without groups":          {[]edit{set("spec.neverAllow", `[{verbs: [get], resources: [pods]}]`)}, "apiGroups: given with resources, and only then"},
			"a never-rule about nothing":           {[]edit{set("spec.neverAllow", `[{verbs: [get]}]`)}, "give exactly one of resources and nonResourceURLs"},
			"a never-rule about both":              {[]edit{set("spec.neverAllow", `[{verbs: [get], apiGroups: [""], resources: [pods], nonResourceURLs: [/a]}]`)}, "give exactly one of resources and nonResourceURLs"},
			"an unknown serviceAccountGrants":      {[]edit{set("spec.serviceAccountGrants", "Perhaps")}, "spec.serviceAccountGrants: Unsupported value"},
			"flags of Secrets":                     {[]edit{set("spec.flaggedContent", `{resources: [{resource: secrets}], selector: {matchLabels: {supportaccess.dev/flagged: a}}}`)}, "Secrets are never flagged content"},
			"flags of Secrets of a product's own":  {[]edit{set("spec.flaggedContent", `{resources: [{group: archive.example, resource: secrets}], selector: {matchLabels: {supportaccess.dev/flagged: a}}}`)}, ""},
			"flags of a subresource":               {[]edit{set("spec.flaggedContent", `{resources: [{resource: pods/log}], selector: {matchLabels: {supportaccess.dev/flagged: a}}}`)}, "spec.flaggedContent.resources[0].resource"},
			"flags of everything":                  {[]edit{set("spec.flaggedContent", `{resources: [{resource: "*"}], selector: {matchLabels: {supportaccess.dev/flagged: a}}}`)}, "spec.flaggedContent.resources[0].resource"},
			"flags of nothing":                     {[]edit{set("spec.flaggedContent", `{resources: [], selector: {matchLabels: {supportaccess.dev/flagged: a}}}`)}, "spec.flaggedContent.resources: Invalid value"},
			"flagged by no label":                  {[]edit{set("spec.flaggedContent", `{resources: [{resource: pods}], selector: {}}`)}, "spec.flaggedContent.selector: must name a label"},
			"flagged by an empty list":             {[]edit{set("spec.flaggedContent", `{resources: [{resource: pods}], selector: {matchExpressions: []}}`)}, "spec.flaggedContent.selector.matchExpressions: Invalid value"},
			"flagged by another's label":           {[]edit{set("spec.flaggedContent", `{resources: [{resource: pods}], selector: {matchLabels: {app: mail}}}`)}, "each key must begin supportaccess.dev/flagged"},
			"flagged by another's key":             {[]edit{set("spec.flaggedContent", `{resources: [{resource: pods}], selector: {matchExpressions: [{key: app, operator: Exists}]}}`)}, "spec.flaggedContent.selector.matchExpressions[0].key"},
			"flagged by a label that is missing":   {[]edit{set("spec.flaggedContent", `{resources: [{resource: pods}], selector: {matchExpressions: [{key: supportaccess.dev/flagged, operator: DoesNotExist}]}}`)}, "Unsupported value"},
			"flagged by one of no values":          {[]edit{set("spec.flaggedContent", `{resources: [{resource: pods}], selector: {matchExpressions: [{key: supportaccess.dev/flagged, operator: In}]}}`)}, "In takes at least one"},
			"flagged by any, with values":          {[]edit{set("spec.flaggedContent", `{resources: [{resource: pods}], selector: {matchExpressions: [{key: supportaccess.dev/flagged, operator: Exists, values: [a]}]}}`)}, "Exists takes none"},
			"on by default, with flagged content":  {[]edit{set("spec.roles", "[{name: support-access-flagged}]"), set("spec.enabledByDefault", `{createdSince: "2026-01-01T00:00:00Z", engineers: [{name: ana}], roles: [support-access-flagged]}`)}, "support-access-flagged is granted for a case, not by a setting"},
			"an unknown newGrants":                 {[]edit{set("spec.newGrants", "Maybe")}, "spec.newGrants: Unsupported value"},
		},
		"SupportAccessRecord": {
			"a mirror's name":                     {[]edit{set("metadata.name", "mail-archive.case-4711")}, ""},
			"no UID":                              {[]edit{unset("spec.grant.uid")}, "spec.grant.uid: Required value"},
			"an end without microseconds":         {[]edit{set("status.endTime", `"2026-12-02T18:00:00Z"`)}, "status.endTime"},
			"an end with milliseconds":            {[]edit{set("status.endTime", `"2026-12-02T18:00:00.123Z"`)}, "status.endTime"},
			"an end with a comma":                 {[]edit{set("status.endTime", `"2026-12-02T18:00:00,123456Z"`)}, "status.endTime"},
			"a transition without microseconds":   {[]edit{set("status.transitions[0].time", `"2026-12-02T18:00:00Z"`)}, "status.transitions[0].time"},
			"a transition by nobody":              {[]edit{set("status.transitions[0].by", `""`)}, "status.transitions[0].by"},
			"a removal on a day that is not":      {[]edit{set("status.removedEngineers[0].time", `"2026-02-30T18:00:00.000000Z"`)}, "status.removedEngineers[0].time"},
			"more dropped than can be counted":    {[]edit{set("status.droppedTransitions", "2147483648")}, "status.droppedTransitions"},
			"a creation with a small t":           {[]edit{set("spec.grant.creationTime", `"2026-12-01t17:59:00Z"`)}, "spec.grant.creationTime"},
			"five sets of rules":                  {[]edit{set("status.rules", "[{role: a, digest: x}, {role: b, digest: x}, {role: c, digest: x}, {role: d, digest: x}, {role: e, digest: x}]")}, "status.rules: Too many"},
			"rules of one role, twice":            {[]edit{set("status.rules", "[{role: a, digest: x}, {role: a, digest: y}]")}, "Duplicate value"},
			"a record of a grant without a scope": {[]edit{unset("spec.scope")}, ""},
			"a record of no place":                {[]edit{set("spec.scope", "{}")}, "give exactly one of namespaces and cluster: true"},
		},
	}
	kinds := serve(t)
	for kind, table := range tables {
		for name, c := range table {
			t.Run(kind+"/"+name, func(t *testing.T) {
				obj := edited(t, seeds[kind][0], c.edits)
				stored := kinds[kind].decode(toJSON(t, obj))
				if stored == nil {
					t.Fatal("cannot be read")
				}
				expect(t, kinds[kind].create(stored), c.want)
			})
		}
	}
}

func TestWhatIsAcceptedOnUpdate(t *testing.T) {
	const never = "a grant is never edited"
	minimal := []edit{set("spec", "{reason: r, engineers: [{name: ana}], duration: 1h}")}
	instants := []edit{unset("spec.duration"), unset("spec.startTime"), set("spec.expirationTime", `"2026-12-03T00:00:00Z"`)}
	type change struct {
		kind   string
		before []edit
		edits  []edit
		want   string
	}
	cases := map[string]change{
		"nothing":                           {kind: "SupportAccessGrant"},
		"reason":                            {kind: "SupportAccessGrant", edits: []edit{set("spec.reason", "a typing error less")}},
		"case.url":                          {kind: "SupportAccessGrant", edits: []edit{set("spec.case.url", "https://elsewhere.example/")}},
		"case.url, set":                     {kind: "SupportAccessGrant", before: []edit{unset("spec.case.url")}, edits: []edit{set("spec.case.url", "https://elsewhere.example/")}},
		"case.url, unset":                   {kind: "SupportAccessGrant", edits: []edit{unset("spec.case.url")}},
		"labels":                            {kind: "SupportAccessGrant", edits: []edit{set("metadata.labels", "{a: b}")}},
		"the order of engineers":            {kind: "SupportAccessGrant", edits: []edit{set("spec.engineers[0]", "{name: cy}"), set("spec.engineers[2]", "{name: ana@vendor.example, publicKey: age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq}")}},
		"the order of roles":                {kind: "SupportAccessGrant", edits: []edit{set("spec.roles", `["product:support", support-access-configuration]`)}},
		"the order of namespaces":           {kind: "SupportAccessGrant", edits: []edit{set("spec.scope.namespaces", "[mail-archive-db, mail-archive]")}},
		"the same instant in another zone":  {kind: "SupportAccessGrant", before: instants, edits: []edit{set("spec.expirationTime", `"2026-12-03T02:00:00+02:00"`)}},
		"cluster: false left out":           {kind: "SupportAccessGrant", edits: []edit{unset("spec.scope.cluster")}},
		"roles left to the default":         {kind: "SupportAccessGrant", before: []edit{set("spec.roles", "[support-access-configuration, support-access-diagnostics]")}, edits: []edit{unset("spec.roles")}},
		"an engineer added":                 {kind: "SupportAccessGrant", edits: []edit{set("spec.engineers", engineers(4))}, want: never},
		"an engineer's key":                 {kind: "SupportAccessGrant", edits: []edit{unset("spec.engineers[0].publicKey")}, want: never},
		"an engineer taken off":             {kind: "SupportAccessGrant", edits: []edit{set("spec.engineers", "[{name: cy}]")}, want: never},
		"a role":                            {kind: "SupportAccessGrant", edits: []edit{set("spec.roles[0]", "cluster-admin")}, want: never},
		"a role fewer":                      {kind: "SupportAccessGrant", edits: []edit{set("spec.roles", "[support-access-configuration]")}, want: never},
		"a namespace":                       {kind: "SupportAccessGrant", edits: []edit{set("spec.scope.namespaces[1]", "other")}, want: never},
		"namespaces to the cluster":         {kind: "SupportAccessGrant", edits: []edit{set("spec.scope", "{cluster: true}")}, want: never},
		"the cluster to namespaces":         {kind: "SupportAccessGrant", before: []edit{set("spec.scope", "{cluster: true}")}, edits: []edit{set("spec.scope", "{namespaces: [a]}")}, want: never},
		"scope, set":                        {kind: "SupportAccessGrant", before: minimal, edits: []edit{set("spec.scope", "{namespaces: [a]}")}, want: never},
		"scope, unset":                      {kind: "SupportAccessGrant", edits: []edit{unset("spec.scope")}, want: never},
		"duration, longer":                  {kind: "SupportAccessGrant", edits: []edit{set("spec.duration", "25h")}, want: never},
		"duration, shorter":                 {kind: "SupportAccessGrant", edits: []edit{set("spec.duration", "23h")}, want: never},
		"duration, the same in other words": {kind: "SupportAccessGrant", edits: []edit{set("spec.duration", "1440m")}, want: never},
		"duration to expirationTime":        {kind: "SupportAccessGrant", edits: instants, want: never},
		"expirationTime to duration":        {kind: "SupportAccessGrant", before: instants, edits: []edit{unset("spec.expirationTime"), set("spec.duration", "24h")}, want: never},
		"expirationTime, later":             {kind: "SupportAccessGrant", before: instants, edits: []edit{set("spec.expirationTime", `"2026-12-03T00:00:01Z"`)}, want: never},
		"expirationTime, earlier":           {kind: "SupportAccessGrant", before: instants, edits: []edit{set("spec.expirationTime", `"2026-12-02T23:59:59Z"`)}, want: never},
		"startTime":                         {kind: "SupportAccessGrant", edits: []edit{set("spec.startTime", `"2026-12-01T18:00:01Z"`)}, want: never},
		"startTime, set":                    {kind: "SupportAccessGrant", before: minimal, edits: []edit{set("spec.startTime", `"2026-12-01T18:00:01Z"`)}, want: never},
		"startTime, unset":                  {kind: "SupportAccessGrant", edits: []edit{unset("spec.startTime")}, want: never},
		"flagged content, allowed":          {kind: "SupportAccessGrant", before: []edit{set("spec.transport", "Gateway")}, edits: []edit{set("spec.flaggedContent", "Allow"), set("spec.roles", "[support-access-configuration, support-access-flagged]")}, want: never},
		"transport":                         {kind: "SupportAccessGrant", edits: []edit{set("spec.transport", "Gateway")}, want: never},
		"transport, set":                    {kind: "SupportAccessGrant", before: minimal, edits: []edit{set("spec.transport", "Direct")}, want: never},
		"transport, unset":                  {kind: "SupportAccessGrant", edits: []edit{unset("spec.transport")}, want: never},
		"the stamp":                         {kind: "SupportAccessGrant", edits: []edit{set("spec.grantedBy", "somebody else")}, want: never},
		"the stamp, set":                    {kind: "SupportAccessGrant", before: minimal, edits: []edit{set("spec.grantedBy", "somebody else")}, want: never},
		"the stamp, unset":                  {kind: "SupportAccessGrant", edits: []edit{unset("spec.grantedBy")}, want: never},
		"the case's number":                 {kind: "SupportAccessGrant", edits: []edit{set("spec.case.id", "CASE-4712")}, want: never},
		"case, set":                         {kind: "SupportAccessGrant", before: minimal, edits: []edit{set("spec.case", "{id: CASE-1}")}, want: never},
		"case, unset":                       {kind: "SupportAccessGrant", edits: []edit{unset("spec.case")}, want: never},
		"spec, unset":                       {kind: "SupportAccessGrant", edits: []edit{unset("spec")}, want: "spec: Required value"},

		"a decision":                    {kind: "SupportAccessDecision", edits: []edit{set("spec.reason", "another")}, want: "a decision is never edited"},
		"a decision's end":              {kind: "SupportAccessDecision", edits: []edit{set("spec.expirationTime", `"2026-12-01T19:00:00Z"`)}, want: "a decision is never edited"},
		"a decision's stamp, unset":     {kind: "SupportAccessDecision", edits: []edit{unset("spec.decidedBy")}, want: "a decision is never edited"},
		"a decision's stamp, set":       {kind: "SupportAccessDecision", before: []edit{unset("spec.decidedBy")}, edits: []edit{set("spec.decidedBy", "me")}, want: "a decision is never edited"},
		"a decision's target":           {kind: "SupportAccessDecision", edits: []edit{set("spec.target.grant", "another")}, want: "a decision is never edited"},
		"a decision's end, in UTC":      {kind: "SupportAccessDecision", edits: []edit{set("spec.expirationTime", `"2026-12-01T17:00:00Z"`)}},
		"a decision's finalizers":       {kind: "SupportAccessDecision", edits: []edit{set("metadata.finalizers", "[supportaccess.dev/decision]")}},
		"a policy":                      {kind: "SupportAccessPolicy", edits: []edit{set("spec.newGrants", "Suspended"), unset("spec.casePattern")}},
		"a policy's pattern":            {kind: "SupportAccessPolicy", edits: []edit{set("spec.casePattern", `"("`)}, want: "must be a regular expression (RE2)"},
		"a record's grant":              {kind: "SupportAccessRecord", edits: []edit{set("spec.grant.uid", "another")}, want: "a record belongs to one grant for ever"},
		"a record's creation, unset":    {kind: "SupportAccessRecord", edits: []edit{unset("spec.grant.creationTime")}, want: "a record belongs to one grant for ever"},
		"a record's end":                {kind: "SupportAccessRecord", edits: []edit{set("status.endTime", `"2026-12-02T18:00:00.000002Z"`)}, want: "status.endTime: is written once"},
		"a record's end, unset":         {kind: "SupportAccessRecord", edits: []edit{unset("status.endTime")}, want: "status.endTime: is written once"},
		"a record's end, set":           {kind: "SupportAccessRecord", before: []edit{unset("status.endTime")}, edits: []edit{set("status.endTime", `"2026-12-02T18:00:00.000002Z"`)}},
		"a record's start":              {kind: "SupportAccessRecord", edits: []edit{set("status.startTime", `"2026-12-01T18:00:01Z"`)}, want: "status.startTime: is written once"},
		"a record's start, unset":       {kind: "SupportAccessRecord", edits: []edit{unset("status.startTime")}, want: "status.startTime: is written once"},
		"a record's opening":            {kind: "SupportAccessRecord", edits: []edit{set("status.provisionedTime", `"2026-12-01T18:00:00.250001Z"`)}, want: "status.provisionedTime: is written once"},
		"a record's opening, unset":     {kind: "SupportAccessRecord", edits: []edit{unset("status.provisionedTime")}, want: "status.provisionedTime: is written once"},
		"a record's limit, later":       {kind: "SupportAccessRecord", edits: []edit{set("status.expirationTime", `"2026-12-02T18:00:01Z"`)}, want: "status.expirationTime: may only move earlier"},
		"a record's limit, earlier":     {kind: "SupportAccessRecord", edits: []edit{set("status.expirationTime", `"2026-12-02T17:59:59Z"`)}},
		"a record's limit, unset":       {kind: "SupportAccessRecord", edits: []edit{unset("status.expirationTime")}, want: "status.expirationTime: may only move earlier"},
		"a record's transitions, added": {kind: "SupportAccessRecord", edits: []edit{set("status.transitions", `[{time: "2026-12-01T18:00:00.250000Z", type: Opened, by: us}, {time: "2026-12-01T18:00:01.250000Z", type: Expired, by: us}]`)}},
	}
	// Whoever unsets the parent must not get round a rule below it.
	for _, parent := range []string{"endTime", "startTime", "awaitingApprovalTime", "provisionedTime", "expirationTime"} {
		cases["a record's status, unset, with "+parent] = change{kind: "SupportAccessRecord",
			before: []edit{set("status", "{}"), copied(t, recordSeed, "status."+parent)}, edits: []edit{unset("status")}, want: "a record is not forgotten"}
	}
	kinds := serve(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			old := edited(t, seeds[c.kind][0], c.before)
			changed := runtime.DeepCopyJSON(old)
			for _, e := range c.edits {
				e.apply(changed)
			}
			before, after := kinds[c.kind].decode(toJSON(t, old)), kinds[c.kind].decode(toJSON(t, changed))
			if before == nil || after == nil {
				t.Fatal("cannot be read")
			}
			if errs := kinds[c.kind].create(before); len(errs) > 0 {
				t.Fatalf("the object before the change: %v", errs)
			}
			expect(t, kinds[c.kind].update(after, before), c.want)
		})
	}
}

func TestTheStatusOfAGrantIsJudgedToo(t *testing.T) {
	kind := serve(t)["SupportAccessGrant"]
	for name, c := range map[string]rule{
		"an end":                      {[]edit{set("status", `{endTime: "2026-12-02T18:00:01Z"}`)}, ""},
		"an end with a small t":       {[]edit{set("status", `{endTime: "2026-12-02t18:00:01Z"}`)}, "status.endTime"},
		"a condition with a small t":  {[]edit{set("status.conditions[0].lastTransitionTime", `"2026-12-02t18:00:01Z"`)}, "status.conditions"},
		"a condition twice":           {[]edit{set("status.conditions[1].type", "Ready")}, "Duplicate value"},
		"a transport that is unknown": {[]edit{set("status.transport", "Telnet")}, "status.transport: Unsupported value"},
	} {
		t.Run(name, func(t *testing.T) {
			old := kind.decode(toJSON(t, fromYAML(t, grantSeed)))
			changed := kind.decode(toJSON(t, edited(t, grantSeed, c.edits)))
			expect(t, kind.updateStatus(changed, old), c.want)
		})
	}
}

func TestWhatIsLeftOutIsDefaulted(t *testing.T) {
	kinds := serve(t)
	grant := kinds["SupportAccessGrant"].decode(toJSON(t, edited(t, grantSeed, []edit{unset("spec.roles"), unset("status")})))
	policy := kinds["SupportAccessPolicy"].decode(toJSON(t, edited(t, policySeed, []edit{set("spec", "{roles: [{name: r}], transports: [Direct]}")})))
	for what, c := range map[string]struct{ got, want any }{
		"a grant's roles":  {grant["spec"].(object)["roles"], []any{"support-access-configuration", "support-access-diagnostics"}},
		"a grant's status": {grant["status"], object{"observedGeneration": int64(-1)}},
		"a policy": {policy["spec"], object{
			"newGrants": "Allowed", "maxDuration": "168h", "maxEnabled": "720h", "maxStartDelay": "168h", "approvalTimeout": "72h", "requestTimeout": "72h", "maxOpenRequests": int64(5), "scopes": []any{"Namespaces"}, "serviceAccountGrants": "ExpirationTimeOnly",
			"requirePublicKey":    "ElevatedRoles",
			"protectedNamespaces": []any{"kube-system", "kube-public", "kube-node-lease"}, "roles": []any{object{"name": "r"}}, "transports": []any{"Direct"},
			"sessions": object{"idleTimeout": "1h", "maxConnections": int64(32), "maxStreamBytes": int64(16777216)}, "recording": object{"input": "Never", "maxLogBytes": int64(1048576)}, "handoverWindow": "24h",
		}},
	} {
		if fmt.Sprint(c.got) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %v, want %v", what, c.got, c.want)
		}
	}
}

func edited(t *testing.T, seed string, edits []edit) object {
	t.Helper()
	obj := fromYAML(t, seed)
	for _, e := range edits {
		e.apply(obj)
	}
	return obj
}

// copied returns an edit that puts at a path what a seed has there.
func copied(t *testing.T, seed, path string) edit {
	t.Helper()
	var at any = fromYAML(t, seed)
	for step := range strings.SplitSeq(path, ".") {
		at = at.(object)[step]
	}
	return edit{path: path, value: at}
}

// expect compares complaints with what one of them must say; nothing means that there are none.
func expect(t *testing.T, errs field.ErrorList, want string) {
	t.Helper()
	switch {
	case want == "" && len(errs) > 0:
		t.Errorf("refused: %v", errs.ToAggregate())
	case want != "" && len(errs) == 0:
		t.Errorf("accepted, want it refused with %q", want)
	case want != "" && !strings.Contains(errs.ToAggregate().Error(), want):
		t.Errorf("refused with %v, want %q", errs.ToAggregate(), want)
	}
}

func engineers(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("{name: e%d}", i))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func names(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("n%d", i))
	}
	return "[" + strings.Join(list, ", ") + "]"
}
