#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
  printf("hello %s from uid %d\n", argc > 1 ? argv[1] : "nobody", getuid());
  return 0;
}
