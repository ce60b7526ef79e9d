#include "app/command.h"

int main(int argc, char **argv) {
    return bcop_command_main(argc, argv);
}
