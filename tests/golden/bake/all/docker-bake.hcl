variable "TAG" {
  default = "latest"
  description = "the tag"
}
variable "DEBUG" { default = false }
variable "N" {
  default = 3
  validation {
    condition = N > 2
    error_message = "N must be more than 2"
  }
}
function "tag" {
  params = [name]
  result = ["demo/${name}:${TAG}", DEBUG ? "demo/${name}:debug" : ""]
}
group "default" {
  targets = ["app", "db"]
}
target "base" {
  context = "app"
  args = { GREETING = "hello", UNUSED = null, N = N }
  labels = { "a.b" = "c" }
}
target "app" {
  inherits = ["base"]
  tags = tag("app")
  target = "final"
}
target "db" {
  inherits = ["base"]
  tags = concat(tag("db"), [for x in ["a", "b"] : "demo/db:${x}-${upper("x")}"])
  dockerfile-inline = <<EOT
FROM busybox
ARG GREETING
RUN echo $${GREETING} > /db
EOT
  matrix = {
    v = ["1", "2"]
  }
  name = "db-${v}"
  output = ["type=cacheonly"]
}
target "other" {
  inherits = ["app"]
  target = "second"
  tags = ["demo/other"]
}
